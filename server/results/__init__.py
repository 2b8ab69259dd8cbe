"""Where the finished outputs of jobs are kept: in Redis, in a folder, or in S3."""
