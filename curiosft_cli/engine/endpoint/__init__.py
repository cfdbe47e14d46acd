"""OpenAI-compatible endpoints: the client, and chats and completions over it."""
