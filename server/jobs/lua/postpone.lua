-- KEYS: a sorted set of ids by when to look at them. Arguments: id, wait_ms. Looks at one later, if it is still there.
return redis.call('ZADD', KEYS[1], 'XX', now + args.wait_ms, args.id)
