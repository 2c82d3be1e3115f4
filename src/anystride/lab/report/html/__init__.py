"""Records of runs to one self-contained page: tables beside the paper's, costs, figures that answer to the mouse."""
