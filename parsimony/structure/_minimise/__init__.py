"""Any mask made a small dense program: constants moved into biases, then units that nothing reads removed."""
