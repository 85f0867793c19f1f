mkdir app/__pycache__ && echo stale >app/__pycache__/main.cpython-311.pyc
