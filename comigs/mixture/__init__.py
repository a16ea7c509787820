"""The mixture of LoRA experts: its algebra, routers, adapters, and models that hold it."""
