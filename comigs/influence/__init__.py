"""Which of a client's text helps it: how each training block moves the loss on validation text.

Every rule is one number a block, lower for what helps more. Nothing of it leaves the device.
"""
