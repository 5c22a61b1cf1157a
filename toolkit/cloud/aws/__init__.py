"""What AWS is asked and told: clients and their errors, names and rights, places and prices."""
