"""The load maker: what is sent, when, over which connections, and what was measured. Aims at nobody by itself."""
