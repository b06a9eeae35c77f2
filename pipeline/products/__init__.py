"""What the pipeline does with what each task trains: one module and one record a task."""

from gan.config import RunConfig
from gan.config import Task as TaskName
from pipeline.product import Product
from pipeline.products.baseline import BASELINES
from pipeline.products.conditional import CONDITIONAL
from pipeline.products.generator import GENERATOR
from pipeline.products.inference import INFERENCE
from pipeline.products.learned_prior import LEARNED_PRIOR
from pipeline.products.semi_supervised import SEMI_SUPERVISED
from pipeline.products.shared_conditional import SHARED_CONDITIONAL

PRODUCTS: dict[TaskName, Product] = {
    "generator": GENERATOR,
    "conditional": CONDITIONAL,
    "inference": INFERENCE,
    "learned_prior": LEARNED_PRIOR,
    "shared_conditional": SHARED_CONDITIONAL,
    "semi_supervised": SEMI_SUPERVISED,
    **BASELINES,
}
"""By `RunConfig.task`."""


def product_of(config: RunConfig) -> Product:
    """The product of what a configuration trains."""
    return PRODUCTS[config.task]
