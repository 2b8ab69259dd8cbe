-- Arguments: worker, epoch. Hands a running job back, at the head of the queue: its entry is parked with the consumer
-- RELEASED and looks idle for a day, so that the next worker with a free slot takes it over at once.
-- Returns 1, or -1 when the job is no longer this worker's.
if not is_mine() then
  return -1
end
redis.call('HSET', key.job, 'state', 'queued', 'owner', '')
redis.call('HINCRBY', key.job, 'attempts', -1)
redis.call('XCLAIM', key.queue, GROUP, RELEASED, 0, field('entry'), 'IDLE', 86400000, 'JUSTID')
return 1
