"""Why a picture got its concepts: the cases that voted, and where in the picture they agree."""
