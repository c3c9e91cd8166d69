"""The four measures of delivery: how often, how long, how many fail, how soon it is mended."""
