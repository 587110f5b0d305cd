"""How a retrain comes about: what is asked for, what is answered, and when it is started."""
