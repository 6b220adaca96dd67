"""The nouns that everything passes along: address, envelope, queue id, verdict, outcome."""
