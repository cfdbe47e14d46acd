"""The grade of one completion, and the processes that compute it. No torch."""
