python3 mk.py files.tar && rm mk.py
