"""An elastic pretrained model, meta-trained once by the sandwich rule, and the search among its sub-networks."""
