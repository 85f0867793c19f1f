#!/bin/sh
exec uvicorn api.main:app
