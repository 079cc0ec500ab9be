"""What `instructions.py` needs: terms, pairs without a teacher, teachers, and what is wrong with an answer."""
