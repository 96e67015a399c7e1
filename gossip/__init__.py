"""What is said to everyone: topics, validation, scores and pubsub."""
