"""seldon-core-microservice, which knows no address but 0.0.0.0, on loopback."""
import sys

from seldon_core import microservice
from seldon_core.gunicorn_utils import StandaloneApplication

start = StandaloneApplication.__init__


def on_loopback(self, app, options=None):
    options["bind"] = options["bind"].replace("0.0.0.0", "127.0.0.1")
    start(self, app, options)


StandaloneApplication.__init__ = on_loopback
sys.exit(microservice.main())
