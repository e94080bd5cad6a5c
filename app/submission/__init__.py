"""Forwards a create to Rivya without ever paying twice: written before it is sent, retried only under its own key."""
