"""Pictures of models and searches, in the manner of scikit-learn's Display classes.

Each class is made by a class method (`from_estimator`, ...), keeps the numbers that it draws as
attributes, and draws them anew with `plot`. Lines differ in dash and marker, not in colour alone.
The pictures need matplotlib: ``pip install "skxmc[plot]"``; importing this module does not.
"""

from ._comparison import SamplerComparisonDisplay
from ._frequency import LabelFrequencyDisplay
from ._training import TrainingDisplay

__all__ = ["LabelFrequencyDisplay", "SamplerComparisonDisplay", "TrainingDisplay"]
