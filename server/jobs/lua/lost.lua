-- ARGV: number of the event, body, ms since submit, group, result ttl, tombstone ttl, then fields of the job in pairs.
-- A job that its worker still holds and of which Redis knows nothing any more ends as failed, for whoever asks or watches.
-- Returns 1 if it was lost, 0 if Redis knows of it: another worker has it, or it has ended.
if redis.call('EXISTS', KEYS[1], KEYS[4]) > 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'seq', ARGV[1] - 1, 'created', now - ARGV[3], 'entry', '0-0', unpack(ARGV, 7))
conclude(ARGV[4], 'failed', ARGV[2], ARGV[5], ARGV[6])
return 1
