"""Training on more than one machine: shards of a run as tasks of Ray, to the same bits.

driver.py hands them out, worker.py trains one, meeting.py has a search's decisions over all."""

from .training import train as train
from .training import train_many as train_many
