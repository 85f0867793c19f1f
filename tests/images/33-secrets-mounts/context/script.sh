#!/bin/sh
echo "$1 from a mount"
