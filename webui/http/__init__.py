"""HTTP as the page's server speaks it: who may ask, bodies, refusals, files in ranges."""
