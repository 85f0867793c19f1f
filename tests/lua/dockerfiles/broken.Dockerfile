FROM debian:12
COPPY a b
# a comment
COPY a
EXPOSE
