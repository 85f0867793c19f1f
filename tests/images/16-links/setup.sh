mkdir -p links/releases/7 links/run
ln -s ../run links/var-run
mkdir links/var && ln -s ../run links/var/run
ln -s releases/7 links/current
mkdir links/opt && ln -s /releases/7 links/opt/app-current
