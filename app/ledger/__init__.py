"""The one SQL record of what is known: deliveries, generations, transitions; only this package changes them."""
