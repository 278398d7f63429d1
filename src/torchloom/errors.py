"""The one exception for what a user can mend."""

import click
from kedro.io import DatasetError


class InputError(click.ClickException, DatasetError):
    """Wrong parameters, files or data: the message names what is wrong and what to do.

    A `ClickException`, so that `kedro run` prints the message without a traceback; a `DatasetError`, so that
    Kedro hands it on as it is when a catalog entry raises it.
    """
