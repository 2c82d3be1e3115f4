"""What is shown of runs and tables: on a terminal, as pictures, and as one page of HTML."""
