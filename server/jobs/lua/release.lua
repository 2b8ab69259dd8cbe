-- ARGV: worker, epoch, group, consumer to park the entry with. Hands a running job back, at the head of the queue:
-- its entry looks idle for a day, so that the next worker with a free slot takes it over at once.
if not is_mine(ARGV[1], ARGV[2]) then
  return -1
end
redis.call('HSET', KEYS[1], 'state', 'queued', 'owner', '')
redis.call('HINCRBY', KEYS[1], 'attempts', -1)
redis.call('XCLAIM', KEYS[3], ARGV[3], ARGV[4], 0, field('entry'), 'IDLE', 86400000, 'JUSTID')
return 1
