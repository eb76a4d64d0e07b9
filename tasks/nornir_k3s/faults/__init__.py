"""What a drill breaks, measures and puts back. The package is not called `drill`: the public function has that name."""
