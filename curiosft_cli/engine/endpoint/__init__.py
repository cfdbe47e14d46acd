"""Any OpenAI-compatible endpoint: one client, its retries, its budget and its pace."""
