-- Arguments: worker, epoch. Renews the lease: the entry's delivery counter grows, which others watch.
-- Returns 0 go on, 1 cancel, 2 the deadline has passed, -1 no longer this worker's.
if not is_mine() then
  return -1
end
local entry = field('entry')
local pending = redis.call('XPENDING', key.queue, GROUP, entry, entry, 1)[1]
if pending then
  redis.call('XCLAIM', key.queue, GROUP, args.worker, 0, entry, 'RETRYCOUNT', pending[4] + 1, 'JUSTID')
end
return order()
