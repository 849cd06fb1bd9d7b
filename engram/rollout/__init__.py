"""Evaluation: many episodes of one policy, what was done to its memory meanwhile, and the record of each."""

from engram.rollout.compare import compare as compare
from engram.rollout.episodes import CounterError as CounterError
from engram.rollout.episodes import EpisodeError as EpisodeError
from engram.rollout.evaluate import evaluate as evaluate
from engram.rollout.evaluate import summarise as summarise
from engram.rollout.records import donors as donors
from engram.rollout.video import film as film
