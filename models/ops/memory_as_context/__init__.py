"""Memory as context (Titans' MAC): the loop over segments compiled. Its plain form is the layer's, `models/titans/mac.py`."""
