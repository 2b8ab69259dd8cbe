-- KEYS: a sorted set of ids by when to look at them. Arguments: most, hold_ms.
-- Returns the ids whose time has come; nobody else gets them for `hold_ms`.
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, args.most)
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], now + args.hold_ms, id)
end
return ids
