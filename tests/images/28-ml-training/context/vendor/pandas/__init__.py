version = '2.2'
