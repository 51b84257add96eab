"""The Open Inference Protocol v2, for clients that already speak it. No HTTP here: see `app.routes.v2`."""
