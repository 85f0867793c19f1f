require('./lib/a')
