"""``ResNetHyperModel``: search spaces and networks for plain KerasTuner code."""

from __future__ import annotations

import functools
from typing import Any

import keras
import keras_tuner as kt

from keras_resnet.weights.load import load
from training.config import Experiment
from training.data.pipeline import steps_per_epoch, training_batches, validation_batches
from training.data.sources import Source, open_source
from training.optim import make_accuracy, make_loss, make_optimizer
from training.runtime import prepare
from training.task import find_weights, make_contract, make_model
from training.tuning.space import Space


class ResNetHyperModel(kt.HyperModel):
    """Builds the networks of a search space and trains them with Keras's ``fit``.

    ```python
    experiment = load_experiment("digits-resnet8")
    space = load_space("space.yaml", experiment)
    tuner = kt.RandomSearch(ResNetHyperModel(experiment, space), "val_accuracy", max_trials=10)
    tuner.search(epochs=5)
    ```

    Args:
        experiment: The experiment that is varied.
        space: The search space.
    """

    def __init__(self, experiment: Experiment, space: Space) -> None:
        super().__init__(name="resnet")
        self.experiment = experiment
        self.space = space

    def declare_hyperparameters(self, hp: kt.HyperParameters) -> None:
        self.space.declare(hp)

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """A compiled model from raw pixels 0–255 to probabilities."""
        experiment = self._experiment(hp)
        runtime = prepare(experiment.runtime)
        weights = find_weights(experiment)
        contract = make_contract(experiment, self._source, weights)
        steps = steps_per_epoch(self._source.train, experiment.runtime.batch_size)
        model = make_model(experiment, contract)
        if weights:
            load(model, weights, contract)
        model.compile(
            optimizer=make_optimizer(experiment, steps),
            loss=make_loss(experiment.optimizer, experiment.task),
            metrics=[make_accuracy(experiment.task)],
            jit_compile=runtime.jit_compile,
        )
        return model

    def fit(
        self, hp: kt.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Fits on the images given to ``search``, or by default on the experiment's.

        Given images are float32 or uint8 ``(count, size, size, channels)`` 0–255 with labels as
        ``training.data.pipeline.target`` makes them, or a dataset of such batches.
        """
        if args or "x" in kwargs:
            return model.fit(*args, **kwargs)
        experiment, contract = self._experiment(hp), model.contract
        first = kwargs.get("initial_epoch", 0)
        return model.fit(
            training_batches(self._source.train, contract, experiment, first),
            validation_data=validation_batches(self._source.test, contract, experiment),
            steps_per_epoch=steps_per_epoch(self._source.train, experiment.runtime.batch_size),
            **{"epochs": experiment.schedule.epochs, "shuffle": False} | kwargs,
        )

    def _experiment(self, hp: kt.HyperParameters) -> Experiment:
        self.space.declare(hp)
        return self.space.experiment(self.experiment, hp.values)

    @functools.cached_property
    def _source(self) -> Source:
        experiment = self.experiment
        return open_source(experiment.data, experiment.runtime.seed, task=experiment.task)
