FROM debian
ENV DB_PASSWORD=hunter2
WORKDIR app
ADD main.py /app/
RUN apt-get update && apt-get install curl
RUN pip install requests
RUN curl -s https://example.org/install | sh
RUN sudo make install
RUN cd /srv
MAINTAINER me
CMD echo one
CMD echo two
USER root
