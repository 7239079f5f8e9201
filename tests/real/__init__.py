"""Small scripts of the shapes that people's training has, and what pipeprof must say of each."""
