src/lib/l.go
