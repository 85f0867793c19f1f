revision = '001'
