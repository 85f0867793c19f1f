ARG BASE=debian:12
FROM ${BASE} AS build
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends gcc && rm -rf /var/lib/apt/lists/*
ADD data.tar.gz /data/
FROM mlhost/base
COPY --from=build /src/out /app
ENV TOKEN_FILE=/run/token
USER 1000:1000
ENTRYPOINT ["/app/run"]
