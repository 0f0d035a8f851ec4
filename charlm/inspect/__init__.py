"""Views into a model: gradients, recall, the worked example."""
