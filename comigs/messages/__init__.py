"""What the server and a device say to each other, as schemas with bounds: parsed before it is used.

`order`: what a server asks; `reply`: what a device answers. Neither knows Flower.
"""
