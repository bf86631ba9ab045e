"""What networks are for: a package per task, each an implementation of `leanface.task.Task`."""
